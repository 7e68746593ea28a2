"""The composition root: rq workers, their supervisor, and what watches over the journal."""
