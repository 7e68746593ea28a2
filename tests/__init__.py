"""Tests. A package by name, because a distribution in site-packages installs one called `tests` too."""
