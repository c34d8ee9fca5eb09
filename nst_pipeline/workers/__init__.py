"""Workers: who makes pastiches. The `Executor` protocol, its messages, and the local one.

A task (a content with its jobs) goes in, a result for each job comes out. A worker reads the style
images and drives the engine; it must not know the ledger, the outbox or the other tasks.
"""
