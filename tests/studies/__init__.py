"""Questions asked of genuine images, answered by `python -m tests.studies.<name>`. Not shipped."""
