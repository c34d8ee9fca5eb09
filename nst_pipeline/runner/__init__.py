"""The runner: carries out a plan. It dispatches tasks, publishes results, disposes of sources.

A failed job never stops the others, and a kill at any moment loses nothing: what a dead process
left half done is completed or undone by the next. It must not know of tensors, of the terminal or
of when it is called; who paints is an `Executor` to it.
"""
