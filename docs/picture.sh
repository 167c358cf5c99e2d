#!/usr/bin/env bash
# Renew docs/images/report.png: the sample's report with two columns of sections, as chromium draws it.
#   docs/picture.sh [runs/smoke/report/report.html]
set -euo pipefail
cd "$(dirname "$0")/.."
report=${1:-runs/smoke/report/report.html}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
style='<style>
  header, main { max-width: 2000px } section { margin: 0 0 18px; break-inside: avoid }
  main { columns: 2; column-gap: 18px; margin-top: 18px } .cards { grid-template-columns: repeat(6, 1fr) }
  section:nth-child(2), section:nth-child(n+5), section:nth-child(4) table { display: none }
</style></head>'
python3 - "$report" "$work/report.html" "$style" <<'PYTHON'
import sys
report, page, style = sys.argv[1:]
text = open(report, encoding="utf-8").read()
open(page, "w", encoding="utf-8").write(text.replace("</head>", style, 1))
PYTHON
mkdir -p docs/images
chromium --headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --hide-scrollbars \
    --user-data-dir="$work/profile" --window-size=2000,1358 --force-device-scale-factor=0.75 \
    --screenshot="$PWD/docs/images/report.png" "file://$work/report.html" 2>/dev/null
