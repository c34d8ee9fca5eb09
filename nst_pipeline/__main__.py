"""``python -m nst_pipeline``."""

from nst_pipeline.cli import main

main()
