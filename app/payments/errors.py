"""Refusals of the payments domain. A declined card is not one: it is an outcome (201, `declined`)."""

from app.errors import AppError, ServiceUnavailable


class PaymentNotFound(AppError):
    """There is none with this id, or it is someone else's: the two must look the same."""

    status = 404
    code = "payment_not_found"
    title = "There is no such payment"


class PaymentTokenRefused(AppError):
    """The provider does not know the token; nothing was charged."""

    status = 422
    code = "payment_token_refused"
    title = "The payment provider does not accept this payment token"


class NotRefundable(AppError):
    """Only a captured payment can be given back."""

    status = 409
    code = "not_refundable"
    title = "This payment cannot be refunded"


class RefundTooLarge(AppError):
    """More than is left of the payment, refunds on their way included."""

    status = 422
    code = "refund_too_large"
    title = "The refund exceeds what is left of the payment"


class ProviderUnavailable(ServiceUnavailable):
    """The provider was not reached by this call, which therefore charged or gave back nothing."""

    code = "payment_provider_unavailable"
    title = "The payment provider cannot be reached"
