"""The stages of the data pipeline, one module each, in the order raw -> kept documents."""
