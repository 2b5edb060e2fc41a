// The one translation unit that compiles Asio's sources.
#include <boost/asio/impl/src.hpp>
