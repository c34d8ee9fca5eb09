"""Jobs: what there is to do, and how far each of it came.

A plan is the contents of the inbox x the styles, less what the ledger knows to be finished; the
ledger (SQLite) holds every job's state, what is known of files, and the runs. It must not know who
carries a job out, nor change a file of the outbox.
"""
