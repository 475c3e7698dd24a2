"""The paths and bodies of the OpenAI API, for clients that speak it: `/v1`."""
