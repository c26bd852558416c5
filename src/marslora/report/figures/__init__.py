"""The pictures of the page: plain plotly figures, each with a sentence that says what to see."""
