"""The exchangeInfo replies of both venues."""

from __future__ import annotations

from typing import Any

from app.exchange.paper.limits import LimitProfile
from app.exchange.paper.model import Venue, text
from app.exchange.paper.symbols import SymbolSpec


def exchange_info(venue: Venue, specs: list[SymbolSpec], limits: LimitProfile, now_ms: int) -> dict[str, Any]:
    """Symbols with their filters, and the rate limits in force."""
    is_futures = venue is Venue.FUTURES
    rates: list[dict[str, Any]] = [
        {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": limits.weight_per_minute,
        }
    ]
    rates += [
        {
            "rateLimitType": "ORDERS",
            "interval": rule.interval,
            "intervalNum": rule.interval_num,
            "limit": rule.most,
        }
        for rule in limits.orders
    ]
    body: dict[str, Any] = {"timezone": "UTC", "serverTime": now_ms, "rateLimits": rates, "exchangeFilters": []}
    if is_futures:
        body["futuresType"] = "U_MARGINED"
        body["assets"] = [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}]
    body["symbols"] = [_futures(spec, limits) if is_futures else _spot(spec, limits) for spec in specs]
    return body


def _price_and_lot(spec: SymbolSpec, market_step: str) -> list[dict[str, Any]]:
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": text(spec.min_price),
            "maxPrice": text(spec.max_price),
            "tickSize": text(spec.tick),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": text(spec.min_quantity),
            "maxQty": text(spec.max_quantity),
            "stepSize": text(spec.step),
        },
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": text(spec.min_quantity),
            "maxQty": text(spec.market_max_quantity),
            "stepSize": market_step,
        },
    ]


def _futures(spec: SymbolSpec, limits: LimitProfile) -> dict[str, Any]:
    return {
        "symbol": spec.symbol,
        "pair": spec.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": 1569398400000,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": spec.base,
        "quoteAsset": spec.quote,
        "marginAsset": spec.quote,
        "pricePrecision": spec.price_precision,
        "quantityPrecision": spec.quantity_precision,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": ["PoW"],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": [
            *_price_and_lot(spec, text(spec.step)),
            {"filterType": "MAX_NUM_ORDERS", "limit": limits.max_open_orders},
            {"filterType": "MIN_NOTIONAL", "notional": text(spec.min_notional)},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": text(spec.multiplier_up),
                "multiplierDown": text(spec.multiplier_down),
                "multiplierDecimal": "4",
            },
        ],
        "orderTypes": [
            "LIMIT",
            "MARKET",
            "STOP",
            "STOP_MARKET",
            "TAKE_PROFIT",
            "TAKE_PROFIT_MARKET",
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def _spot(spec: SymbolSpec, limits: LimitProfile) -> dict[str, Any]:
    return {
        "symbol": spec.symbol,
        "status": "TRADING",
        "baseAsset": spec.base,
        "baseAssetPrecision": 8,
        "quoteAsset": spec.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            *_price_and_lot(spec, "0.00000000"),
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": text(spec.multiplier_up),
                "bidMultiplierDown": text(spec.multiplier_down),
                "askMultiplierUp": text(spec.multiplier_up),
                "askMultiplierDown": text(spec.multiplier_down),
                "avgPriceMins": 5,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": text(spec.min_notional),
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": limits.max_open_orders},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_MAKER"],
    }
