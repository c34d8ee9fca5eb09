"""The manifest: the record of a run, valid JSON in the outbox at any moment.

Holds the schema, the records of single jobs and the recorder, which keeps file and ledger in step.
It must not know how a job is carried out.
"""
