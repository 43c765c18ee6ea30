"""The trusted services of MPAI-AIF V2: rules of ``protocol`` with keys, state and injected back ends."""
