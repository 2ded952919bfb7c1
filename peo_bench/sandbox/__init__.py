"""The sandbox: a small synthetic world with exact gold objectives, in which every method runs in seconds."""
