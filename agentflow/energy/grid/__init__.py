"""The grid: grams of CO2 equivalent, the price of power and water, for joules used in a place at a time.

figures    what a figure is, and a place      averages   yearly figures that ship, PUE, water
hourly     tables of hours that you bring     live       providers over HTTP
emissions  from joules to grams, dollars and litres
"""

from agentflow.energy.grid.averages import Region, pue, region, regions, wue, yearly_carbon
from agentflow.energy.grid.emissions import Emissions, PowerCost, Water, emissions, power_cost, water
from agentflow.energy.grid.figures import WORLD, GridFigure, Place
from agentflow.energy.grid.hourly import HourlyTable
from agentflow.energy.grid.live import ElectricityMaps, LiveCarbon, LivePrice, Neso, live_or_average

__all__ = [
    "WORLD",
    "ElectricityMaps",
    "Emissions",
    "GridFigure",
    "HourlyTable",
    "LiveCarbon",
    "LivePrice",
    "Neso",
    "Place",
    "PowerCost",
    "Region",
    "Water",
    "emissions",
    "live_or_average",
    "power_cost",
    "pue",
    "region",
    "regions",
    "water",
    "wue",
    "yearly_carbon",
]
