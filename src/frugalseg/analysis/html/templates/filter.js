// A box that hides experiments whose rows lack a word; the page is complete without it.
(() => {
  const rows = [...document.querySelectorAll(".experiments tbody tr")];
  if (rows.length < 8) return;
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "filter, such as longtail or broken";
  box.setAttribute("aria-label", "Filter experiments");
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
  });
  document.querySelector("header").append(box);
})();
