"""From tables to pictures: panels as data, the tidy table of a figure, layout and look."""
