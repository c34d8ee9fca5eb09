"""Previews: contents painted small in styles and recipes, on one labelled sheet.

Shares the engine and the reading of files with the rest, and writes nothing but the sheet: it must
not know of plans, the ledger or the outbox.
"""
