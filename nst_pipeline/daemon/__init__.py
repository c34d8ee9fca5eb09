"""The daemon: when the runner runs, what it tells of that, and what it obeys.

It waits for events, signals, people and the things that a run cannot do without; the runner does
the work. It must not know how a job is planned, painted or published.
"""
