"""What HTML pages of ours are made of: markup that cannot be broken, blocks, wording, base style, their folder."""
