"""Reports of finished or running trainings, made from the files of run folders alone (no jax is imported)."""

from metacpo.report.page import write_report as write_report
from metacpo.report.picture import write_readme_picture as write_readme_picture
from metacpo.report.read import ReportError as ReportError
