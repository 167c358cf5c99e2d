"""Raw documents -> kept documents and a table of decisions.

Eight stages, each an artifact, each cut into tasks that exchange files only:

    classifiers     labelled text -> quality, toxicity and domain models (optional)
    extract         raw files -> documents, rejects
    lines           documents -> the same with boilerplate lines gone, and every edit (optional)
    score           documents -> attributes: everything that needs the text, no threshold
    dedup           attributes -> clusters
    decontaminate   documents -> overlaps with benchmarks (optional)
    filter          attributes, clusters, overlaps -> decisions: all thresholds are here, and no text
    write           decisions -> kept documents, masked

`reading/` knows bytes, formats and character sets; `measuring/` holds pure functions of one text.
"""
