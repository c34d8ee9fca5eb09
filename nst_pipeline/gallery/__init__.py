"""The gallery: a static site in the outbox that shows what was painted, and how.

Joins what the ledger and the manifests know of each job, makes thumbnails, and writes pages and
data for them; what did not change is not written again. It must not know how a job is planned or
painted, needs no torch, and nothing that goes wrong with it is a job's fault.
"""
