"""Raw documents -> kept documents and a table of decisions.

`readers/` knows bytes, formats and character sets; `features/` turns a text into numbers; `classification/`
holds the text classifiers; `decisions/` applies thresholds to columns; `stages/` puts them in order.
"""
