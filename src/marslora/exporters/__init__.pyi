from ._base import AbstractExporter as AbstractExporter
