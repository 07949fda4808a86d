"""Pure arithmetic on arrays: number formats and block formats. No files, no models."""
