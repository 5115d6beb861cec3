"""Programs for the people who work on this repository: `python -m tools.house --help`. Not part of the package."""
