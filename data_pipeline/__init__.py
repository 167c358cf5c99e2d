"""Raw documents -> kept documents and a ledger of decisions.

Four stages (five with a classifier), each an artifact, each cut into tasks that exchange files only:

    extract -> documents     read everything once, into one normalised text a document
    score   -> attributes    compute everything that needs the text, no threshold
    dedup   -> clusters      join equal hashes
    decide  -> ledger, kept documents; all thresholds are here, so they change without scoring again

The files, in the order of the data's way:

    sources.py      which files a source has, their fingerprints, how they are cut into tasks
    streams.py      compressed files as bounded chunks and lines
    charset.py      bytes -> text: UTF-8, UTF-16, EUC-KR/CP949, declared sets
    html.py         page -> main text (resiliparse)
    normalise.py    NFC, line ends, controls; mojibake repair
    readers.py      JSON Lines, WARC (fastwarc), HTML, text -> documents and rejects
    extract.py      stage: documents with ids, rejects list
    characters.py   code point -> class, one table
    lexicons.py     stop words and endings, spam terms, bullets
    features.py     every feature that needs no model
    language.py     Korean, English or another (py3langid)
    classifier.py   stage: fastText quality model; its predictions
    pii.py          personal numbers and addresses: find, count, mask
    minhash.py      near-duplicate keys
    score.py        stage: all attributes of every document
    dedup.py        stage: clusters of exact and near duplicates
    rules.py        bounds -> failed rules
    decide.py       stage: reasons, decision, split; kept documents
    funnel.py       counts by source, language and reason
    tables.py       Parquet as all stages write and read it
"""
