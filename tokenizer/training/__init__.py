"""Kept documents -> word counts -> the pieces of a vocabulary."""
