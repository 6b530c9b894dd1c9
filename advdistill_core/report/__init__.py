"""What people look at: the report, its figures, and the cards of the data and the model."""
