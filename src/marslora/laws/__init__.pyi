from ._base import AbstractLaw as AbstractLaw
from ._form import Form as Form
from ._form import Shape as Shape
from ._intervals import interval as interval
from ._joint import CellCurve as CellCurve
from ._joint import fit_joint as fit_joint
