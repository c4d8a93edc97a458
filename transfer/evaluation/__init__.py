"""From predictions to a report: metrics, published results, plots and tables."""
