"""Measurements -> decisions: rules, reasons, thresholds and the funnel. No text is read here."""
