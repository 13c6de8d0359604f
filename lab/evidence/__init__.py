"""The second protocol of docs/evidence.md: its rows, their runs, their statistics and the page's tables."""
