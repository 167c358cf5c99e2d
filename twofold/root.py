"""Where the packages lie: the checkout, or the folder that they were installed into."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
