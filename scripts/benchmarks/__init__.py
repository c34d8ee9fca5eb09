"""What `scripts/bench` measures: one module a subcommand, each with a function `measure`."""
