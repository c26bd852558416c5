"""The charts of the pages: plain plotly figures, each with a caption that says what to see."""
