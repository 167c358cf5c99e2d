"""The leaf of the house: recipe schema, loading, artifact manifests, and the recipes themselves.

Everything imports `configs`; `configs` imports none of the stages and no heavy package
(pydantic, PyYAML and the standard library only), so that `twofold validate` answers at once.

    errors.py     UserError: field, value, problem, hint; always one line, exit code 2
    units.py      "6T" tokens, "30MB" bytes: parsed exactly, the wrong unit refused
    schema.py     the typed, frozen sections of a recipe
    recipe.py     YAML + dotted overrides -> Recipe, or a UserError that names the line to fix
    renamed.py    old names of recipe fields: refused with the new one
    checks.py     what no single field can know: combinations across sections
    manifest.py   artifacts with identity: build aside, commit atomically, reuse or refuse
    files.py      atomic writes, disk-full errors
    tasks.py      what a stage may ask of the executor that runs it
"""

VERSION = "0.1.0"
