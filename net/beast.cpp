// The one translation unit that compiles Beast's and Asio's TLS sources.
#include <boost/asio/ssl/impl/src.hpp>
#include <boost/beast/src.hpp>
