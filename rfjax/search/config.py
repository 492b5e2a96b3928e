"""The config of the study of search, by the name that config files import."""

from rfjax.studies.search.config import base as base
