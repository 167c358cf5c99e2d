"""The folder of the packages: the checkout, or the site-packages they were installed into."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
