import sqlalchemy, redis, time, pytest
@pytest.mark.parametrize("n",range(3))
def test_db(database_url,n):
    e=sqlalchemy.create_engine(database_url)
    with e.begin() as c:
        c.execute(sqlalchemy.text("create table a(b int)"))
    e.dispose()
def test_r(redis_url, redis_server):
    r=redis.Redis.from_url(redis_url); r.set("a",1); r.close(); redis_server.kill()
def test_r2(redis_url):
    r=redis.Redis.from_url(redis_url); assert not r.exists("a"); r.close()
