"""The heart: states, guards, classification. Knows neither rq, SQL, HTTP nor Binance's client."""
