"""One self-contained HTML page per run: tables, plots, cards, sliders and rotatable 3D views, without any network."""

from __future__ import annotations

from polydit.core.report.images import compare as compare
from polydit.core.report.images import inline_image as inline_image
from polydit.core.report.images import strip as strip
from polydit.core.report.page import Page as Page
from polydit.core.report.plots import bar_plot as bar_plot
from polydit.core.report.plots import histogram as histogram
from polydit.core.report.plots import line_plot as line_plot
from polydit.core.report.points import RAMP as RAMP
from polydit.core.report.points import PointScene as PointScene
from polydit.core.report.points import along_the_ramp as along_the_ramp
from polydit.core.report.run_page import counted as counted
from polydit.core.report.run_page import failed_items as failed_items
from polydit.core.report.run_page import failures as failures
from polydit.core.report.run_page import run_page as run_page
from polydit.core.report.run_page import write_page as write_page
from polydit.core.report.sections import Badge as Badge
from polydit.core.report.sections import Card as Card
from polydit.core.report.sections import Figure as Figure
from polydit.core.report.sections import Figures as Figures
from polydit.core.report.sections import Gallery as Gallery
from polydit.core.report.sections import Headline as Headline
from polydit.core.report.sections import Plot as Plot
from polydit.core.report.sections import Plots as Plots
from polydit.core.report.sections import Section as Section
from polydit.core.report.sections import Sheet as Sheet
from polydit.core.report.sections import Table as Table
from polydit.core.report.sections import Text as Text
from polydit.core.report.viewer import HANDS as HANDS
from polydit.core.report.viewer import Scene as Scene
from polydit.core.report.viewer import viewer as viewer
