"""One evaluation of one model: splits, draws, cached features, time, record."""
