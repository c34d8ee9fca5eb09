"""Procedural sample pictures: three contents and three styles."""
