import time, pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from modelhub.registry.models import *
from modelhub.lifecycle.models import *
from modelhub.telemetry.models import Sample
from tests.registry.test_admin import register, LIST, url
pytestmark=pytest.mark.django_db
def test_it(admin_client):
    register(10_000)
    LoaderStatus.objects.create(pk=1, pid=1, observed_at=timezone.now())
    vs=list(ModelVersion.objects.filter(status="loaded")); print(len(vs),"loaded")
    now=timezone.now()
    Sample.objects.bulk_create([Sample(version=v,at=now-timezone.timedelta(seconds=10*i),seconds=10,requests=9,histogram=[1]*60) for v in vs for i in range(30)])
    for l in Model.objects.all()[:1000]:
        pass
    Alias.objects.bulk_create([Alias(lineage_id=v.lineage_id,name="live",version=v,set_by="x") for v in ModelVersion.objects.filter(version="0")])
    with connection.cursor() as c: c.execute("ANALYZE")
    admin_client.get(reverse(LIST))
    for q in ["","?p=100","?q=lineage-00001","?q=zzz","?status__exact=loaded&framework=sklearn","?attention=approval","?o=-6","?o=-8","?o=2","?o=5"]:
        with CaptureQueriesContext(connection) as cap:
            t=time.perf_counter(); r=admin_client.get(reverse(LIST)+q); dt=time.perf_counter()-t
        print(f"{q:45} {r.status_code} {len(cap)} queries {1000*dt:.0f} ms, db {1000*sum(float(x['time']) for x in cap):.0f} ms, {len(r.content)//1024} KiB")
    for x in sorted(cap,key=lambda x:-float(x["time"]))[:4]: print(x["time"],x["sql"][:200])
    with CaptureQueriesContext(connection) as cap: admin_client.get(reverse(LIST))
    for x in cap: print(x["time"],x["sql"][:150])
    g=[x["sql"] for x in cap if "models_counted" in x["sql"]][0]
    with connection.cursor() as c:
        c.execute("EXPLAIN ANALYZE "+g); print("\n".join(r[0] for r in c.fetchall())[:2500])
        li=[x["sql"] for x in cap if "LIMIT 50" in x["sql"]][0]
        c.execute("EXPLAIN ANALYZE "+li); print("\n".join(r[0] for r in c.fetchall())[:1500])
    from modelhub.console.model_page.rows import watched
    pks=[v.pk for v in ModelVersion.objects.order_by("model_id")[:50]]
    rows=",".join(f"{pk}:x" for pk in pks); watched.forget()
    with CaptureQueriesContext(connection) as cap:
        t=time.perf_counter(); r=admin_client.get(reverse("console:model-rows"),{"rows":rows},headers={"HX-Request":"true"}); dt=time.perf_counter()-t
    print("rows",r.status_code,len(cap),f"{1000*dt:.0f} ms",len(r.content))
    v=vs[0]
    with CaptureQueriesContext(connection) as cap:
        t=time.perf_counter(); r=admin_client.get(url("change",v.pk)); dt=time.perf_counter()-t
    print("page",r.status_code,len(cap),f"{1000*dt:.0f} ms",len(r.content))
    for x in cap: print("   ",x["time"],x["sql"][:110])
