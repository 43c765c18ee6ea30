"""Files → model: AIM, AIW and inventory files, with file:line:column for every value."""

from aif.config.aim import load_aim
from aif.config.catalogue import Catalogue, load_catalogue
from aif.config.inventory import load_inventory
from aif.config.workflow import LoadedWorkflow, load_workflow

__all__ = ["Catalogue", "LoadedWorkflow", "load_aim", "load_catalogue", "load_inventory", "load_workflow"]
