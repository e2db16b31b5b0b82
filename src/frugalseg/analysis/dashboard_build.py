"""W&B's workspace and reports from `dashboard`, by the optional package wandb-workspaces."""

from typing import Any

import wandb_workspaces.reports.v2.interface as reports
import wandb_workspaces.workspaces as workspaces

from frugalseg.analysis.dashboard import PAGES, STEP, Page, Panel

WORKSPACE = "frugalseg"


def panel_of(panel: Panel) -> Any:
    """W&B's panel."""
    if panel.kind == "lines":
        return reports.LinePlot(title=panel.title, x=STEP, y=list(panel.keys))
    if panel.kind == "bars":
        return reports.BarPlot(
            title=panel.title,
            metrics=list(panel.keys),
            groupby=reports.Config(panel.group),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
    if panel.kind == "comparer":
        return reports.RunComparer(diff_only="split")
    table, column = panel.keys
    return reports.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name="wandb/bar/v0",
        chart_fields={"label": "class", "value": column},
        chart_strings={"title": panel.title},
    )


def workspace(entity: str, project: str) -> Any:
    """The workspace: a section for each of all pages' sections; what else is logged, pictures too, is below them."""
    sections = [
        workspaces.Section(name=f"{page.paper}: {section.name}", panels=[panel_of(panel) for panel in section.panels])
        for page in PAGES
        for section in page.sections
    ]
    grouped = workspaces.RunsetSettings(groupby=[workspaces.Config("run_experiment"), workspaces.Config("run_stage")])
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=WORKSPACE,
        sections=sections,
        runset_settings=grouped,
        auto_generate_panels=True,
    )


def report(page: Page, entity: str, project: str) -> Any:
    """A paper's report."""
    blocks: list[Any] = [reports.TableOfContents(), reports.P(page.text)]
    for section in page.sections:
        runs = reports.Runset(
            entity=entity,
            project=project,
            name=page.paper,
            filters=f"Tags in ['{page.paper}']",
            groupby=["config.run_experiment", "config.run_stage"],
        )
        panels = [panel_of(panel) for panel in section.panels]
        blocks += [reports.H2(section.name), reports.PanelGrid(runsets=[runs], panels=panels)]
    return reports.Report(entity=entity, project=project, title=page.title, description=page.text, blocks=blocks)


def save(entity: str, project: str) -> list[str]:
    """Build everything and save it to W&B.

    Args:
        entity: W&B user or team.
        project: W&B project.

    Returns:
        Addresses of the workspace and of the reports.
    """
    made = [workspace(entity, project), *(report(page, entity, project) for page in PAGES)]
    return [str(each.save().url) for each in made]
