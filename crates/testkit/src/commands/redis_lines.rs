//! One line per form of a command.
//!
//! A word in angle brackets is drawn: `<s> <h> <l> <u> <z> <x> <p> <g>` a key of a string, hash,
//! list, set, sorted set, stream, HyperLogLog or set of places, `<k>` a key of any type, `<K>` one
//! under any tag, `<=>` the last key again; `<v>` a value, `<w>` one of eight words, `<n>` a small
//! number, `<i>` one of either sign, `<f>` a fraction, `<id>` a stream entry. `@` repeats a word one
//! to five times, with a comma inside as two words. ` ; ` joins commands that belong together. The
//! first character names the law: `?` order is free, `%` order of pairs, `~` only the shape is
//! given, `#` numbers are near each other.
//!
//! Where chance changes what is stored, the line removes it again: the next command must find both
//! sides alike.

pub(super) const LINES: &str = r#"
SET <s> <v>
SET <s> <v> NX
SET <s> <v> XX GET
SET <s> <v> EX 5000
SET <s> <v> KEEPTTL
SET <s> <v> NX EX nonsense
SET <s>
SET <s> <n>
SET <s> <n>
GET <s>
GET <s>
GET <k> superfluous
GETSET <s> <v>
GETDEL <s>
GETEX <s> EX 5000
GETEX <s> PERSIST
GETRANGE <s> <i> <i>
SUBSTR <s> <i> <i>
SETRANGE <s> <n> <v>
SETNX <s> <v>
SETEX <s> 5000 <v>
SETEX <s> 0 <v>
PSETEX <s> 5000000 <v>
APPEND <s> <w>
STRLEN <s>
INCR <s>
DECR <s>
INCRBY <s> <i>
DECRBY <s> <i>
INCRBYFLOAT <s> <f>
SETBIT <s> <n> 1
GETBIT <s> <n>
BITCOUNT <s>
BITCOUNT <s> <i> <i> BIT
BITPOS <s> 1
BITFIELD <s> INCRBY u8 <n> <n> GET i4 <n> OVERFLOW SAT SET u4 0 <n>
BITFIELD_RO <s> GET u8 <n>
BITOP AND <s> <s> <s>
BITOP NOT <s> <s>
LCS <s> <s> LEN
MSET @<K>,<v>
MSET <K>
MGET @<K>
MGET @<K>
MGET @<K>
MSETNX <s> <v> <s> <v>
MSETEX 2 <s> <v> <s> <v> EX 5000
DELIFEQ <s> <n>
DEL @<K>
UNLINK @<K>
EXISTS @<K>
TOUCH @<K>
EXPIRE <k> 5000
EXPIRE <k> 5000 NX
EXPIRE <s> -1
PEXPIRE <k> 5000000
EXPIREAT <k> 4102444800
PEXPIREAT <k> 4102444800000
#TTL <k>
#PTTL <k>
#EXPIRETIME <k>
#PEXPIRETIME <k>
PERSIST <k>
TYPE <k>
RENAME <k> <k>
RENAMENX <k> <k>
COPY <k> <k>
COPY <k> <k> REPLACE
MOVE <s> 1
~DUMP <s>
~DUMP <h>
RESTORE <s> 0 "\x00\x01a\x0a\x00\xae\x2b\x1c\x82\x6e\x6b\x9b\x3e"
RESTORE <s> 0 nonsense
OBJECT ENCODING <k>
OBJECT REFCOUNT <k>
#OBJECT IDLETIME <k>
OBJECT FREQ <k>
OBJECT HELP
OBJECT NONSENSE <k>
~MEMORY USAGE <s>
MEMORY HELP
HSET <h> @<w>,<v>
HSET <h> <w>
HMSET <h> @<w>,<n>
HSETNX <h> <w> <v>
HGET <h> <w>
HMGET <h> @<w>
%HGETALL <h>
?HKEYS <h>
?HVALS <h>
HLEN <h>
HEXISTS <h> <w>
HSTRLEN <h> <w>
HINCRBY <h> <w> <i>
HINCRBYFLOAT <h> <w> <f>
HDEL <h> @<w>
%HSCAN <h> 0 COUNT 1000
~HRANDFIELD <h> 3
~HRANDFIELD <h>
HEXPIRE <h> 5000 FIELDS 1 <w>
HPEXPIRE <h> 5000000 FIELDS 1 <w>
HEXPIREAT <h> 4102444800 FIELDS 1 <w>
HPEXPIREAT <h> 4102444800000 FIELDS 1 <w>
#HTTL <h> FIELDS 1 <w>
#HPTTL <h> FIELDS 1 <w>
#HEXPIRETIME <h> FIELDS 1 <w>
#HPEXPIRETIME <h> FIELDS 1 <w>
HPERSIST <h> FIELDS 1 <w>
HGETEX <h> EX 5000 FIELDS 1 <w>
HSETEX <h> EX 5000 FIELDS 1 <w> <v>
HGETDEL <h> FIELDS 1 <w>
RPUSH <l> @<n>
RPUSH <l> @<v>
LPUSH <l> @<n>
LPUSHX <l> <v>
RPUSHX <l> <v>
LLEN <l>
LRANGE <l> 0 -1
LRANGE <l> <i> <i>
LINDEX <l> <i>
LINSERT <l> BEFORE <n> <v>
LSET <l> <i> <v>
LPOS <l> <n> COUNT 0
LREM <l> <i> <n>
LTRIM <l> 0 20
LPOP <l>
LPOP <l> 2
RPOP <l>
RPOP <l> 0
RPOPLPUSH <l> <l>
LMOVE <l> <l> LEFT RIGHT
LMPOP 2 <l> <l> LEFT COUNT 2
SORT <l> ALPHA
DEL <l> ; RPUSH <=> 3 1 2 10 ; SORT <=> DESC LIMIT 0 3 ; SORT_RO <=> ; SORT <=> STORE <l>
SADD <u> @<w>
SADD <u> @<n>
SCARD <u>
SISMEMBER <u> <w>
SMISMEMBER <u> @<w>
?SMEMBERS <u>
?SDIFF <u> <u>
?SINTER <u> <u>
?SUNION <u> <u>
SINTERCARD 2 <u> <u> LIMIT 2
SDIFFSTORE <u> <u> <u>
SINTERSTORE <u> <u> <u>
SUNIONSTORE <u> <u> <u>
SMOVE <u> <u> <w>
SREM <u> @<w>
?SSCAN <u> 0 COUNT 1000
~SRANDMEMBER <u>
~SRANDMEMBER <u> 3
~SRANDMEMBER <u> -3
?SPOP <u> 1000
DEL <u> ; SADD <=> a b c d ; ~SPOP <=> ; SCARD <=> ; ~SPOP <=> 2 ; SCARD <=> ; DEL <=>
ZADD <z> @<n>,<w>
ZADD <z> XX CH @<n>,<w>
ZADD <z> GT INCR <n> <w>
ZCARD <z>
ZCOUNT <z> 1 (9
ZINCRBY <z> <f> <w>
ZSCORE <z> <w>
ZMSCORE <z> @<w>
ZRANK <z> <w>
ZREVRANK <z> <w>
ZRANGE <z> 0 -1 WITHSCORES
ZRANGE <z> 1 9 BYSCORE LIMIT 0 3
ZRANGE <z> [a [f BYLEX
ZREVRANGE <z> 0 <n>
ZRANGEBYSCORE <z> -inf +inf WITHSCORES LIMIT 1 4
ZREVRANGEBYSCORE <z> +inf <n>
ZLEXCOUNT <z> - +
ZRANGEBYLEX <z> - (c
ZREVRANGEBYLEX <z> + [b
ZRANGESTORE <z> <z> 0 3
ZDIFF 2 <z> <z> WITHSCORES
ZINTER 2 <z> <z> WITHSCORES
ZUNION 2 <z> <u> WEIGHTS 1 2 AGGREGATE MAX WITHSCORES
ZUNION 9 <z> <z>
ZUNION 0 <z>
ZINTERCARD 2 <z> <z>
ZDIFFSTORE <z> 2 <z> <z>
ZINTERSTORE <z> 2 <z> <z>
ZUNIONSTORE <z> 2 <z> <u> AGGREGATE MIN
%ZSCAN <z> 0 COUNT 1000
ZPOPMIN <z>
ZPOPMAX <z> 2
ZMPOP 2 <z> <z> MIN COUNT 2
ZREM <z> @<w>
ZREMRANGEBYRANK <z> 7 -1
ZREMRANGEBYSCORE <z> 14 15
ZREMRANGEBYLEX <z> [h [h
~ZRANDMEMBER <z>
~ZRANDMEMBER <z> 3 WITHSCORES
PFADD <p> @<w>
PFCOUNT <p>
PFCOUNT <p> <p>
PFMERGE <p> <p> <p>
GEOADD <g> 13.361389 38.115556 a 15.087269 37.502669 b
GEOADD <g> <n>.25 <n> <w>
GEODIST <g> a b km
GEOHASH <g> a b <w>
GEOPOS <g> a <w>
GEORADIUS <g> 15 37 200 km ASC WITHDIST
GEORADIUS <g> 15 37 200 km STORE <g>
GEORADIUS_RO <g> 15 37 200 km ASC
GEORADIUSBYMEMBER <g> a 200 km ASC
GEORADIUSBYMEMBER <g> a 200 km STOREDIST <g>
GEORADIUSBYMEMBER_RO <g> a 200 km ASC
GEOSEARCH <g> FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHCOORD
GEOSEARCHSTORE <g> <g> FROMMEMBER a BYRADIUS 200 km
XADD <x> <id> @<w>,<v>
XADD <x> <id> f <w>
XADD <x> MAXLEN = 20 <id> f <w>
XADD <x> NOMKSTREAM <id> f <w>
DEL <x> ; ~XADD <=> * f <w> ; XLEN <=> ; DEL <=>
XLEN <x>
XRANGE <x> - +
XRANGE <x> <id> + COUNT 3
XREVRANGE <x> + -
XREAD COUNT 2 STREAMS <x> <id>
XREAD STREAMS <x> <x> 0 <id>
XREAD STREAMS <x>
XTRIM <x> MAXLEN 10
XDEL <x> <id>
XSETID <x> 60-0
XGROUP CREATE <x> grp 0 MKSTREAM
XGROUP CREATECONSUMER <x> grp <w>
XGROUP DELCONSUMER <x> grp <w>
XGROUP SETID <x> grp 0
XGROUP DESTROY <x> grp
XGROUP HELP
XREADGROUP GROUP grp <w> COUNT 2 STREAMS <x> >
XACK <x> grp <id>
XPENDING <x> grp
~XPENDING <x> grp - + 5
XCLAIM <x> grp <w> 0 <id>
XAUTOCLAIM <x> grp <w> 0 0 COUNT 5
XINFO STREAM <x>
XINFO GROUPS <x>
~XINFO CONSUMERS <x> grp
XINFO HELP
EVAL "return {1,{2,{3,'x'}},false}" 0
EVAL "return redis.call('get',KEYS[1])" 1 <s>
EVAL "return redis.error_reply('MY no')" 1 <s>
EVAL "return nonsense(" 1 <s>
EVAL "return redis.call('set',KEYS[1],ARGV[1])" 1 <s> <v>
EVAL "return {KEYS[1],KEYS[2],ARGV[1]}" 2 <s> <l> <w>
EVAL "return 1" 5 <s>
EVAL "return 1" -1 <s>
EVAL "return 1" none <s>
EVAL_RO "return redis.call('llen',KEYS[1])" 1 <l>
EVALSHA 0123456789012345678901234567890123456789 1 <s>
EVALSHA_RO 0123456789012345678901234567890123456789 1 <s>
FCALL nosuch 1 <s>
FCALL_RO nosuch 1 <s>
COMMAND COUNT
COMMAND GETKEYS MSET a b c d
~LOLWUT VERSION 5
~TIME
PING
PING <v>
PING a b
ECHO <v>
SELECT 0
SELECT 100
CLIENT SETNAME me ; CLIENT GETNAME
~CLIENT ID
HELLO 4
RESET
nosuch <k> <v>
"with blank" <k>
GET
MGET
DEL
"#;
