"""Recipes: their schema, how they are loaded and checked, and the shipped YAML files. Imports only `twofold`."""
